// The worker of WebWorkerMLCEngine; start.mjs tells the options that its URL may have.

import { openInbox, refusal, startEngine } from './start.mjs?v=__BUILD__';

const inbox = openInbox();

try {
  await startEngine(inbox, 'WebWorkerMLCEngineHandler');
} catch (error) {
  console.error(error);
  postMessage(refusal('', error)); // our proxy ends everything; WebLLM's only understands an answer to each request
  inbox.take(({ data }) => postMessage(refusal(data?.uuid ?? '', error)));
}
