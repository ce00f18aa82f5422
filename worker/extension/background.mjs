// The example extension's background worker: the engine, and nothing else.

import { serve } from '../extension_worker.mjs?v=__BUILD__';

serve();
