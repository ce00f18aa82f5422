// The engine's service worker for pages of the whole site: it serves those below its own address.

import './worker/service_worker.mjs?v=__BUILD__';
