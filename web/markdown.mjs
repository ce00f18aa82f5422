// Markdown to safe HTML: a model's output is not to be trusted.

import { marked } from './marked/marked.esm.js';
import DOMPurify from './dompurify/purify.es.mjs';

// No images, frames or styles: an answer must not make the browser fetch anything.
const TAGS = [
  'a', 'blockquote', 'br', 'code', 'del', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'li',
  'ol', 'p', 'pre', 'strong', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul',
];
const RULES = { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ['href', 'title', 'start', 'align'] };

/** Show `text`, which is Markdown, in `element`. */
export function renderMarkdown(element, text) {
  element.innerHTML = DOMPurify.sanitize(marked.parse(text, { breaks: true }), RULES);
  for (const link of element.querySelectorAll('a')) {
    link.target = '_blank';
    link.rel = 'noopener noreferrer';
  }
}
