// Markdown to safe HTML: a model's output is not to be trusted.

import { marked } from './marked/marked.esm.js';
import DOMPurify from './dompurify/purify.es.mjs';

// No images, frames or styles: an answer must not make the browser fetch anything.
const TAGS = [
  'a', 'blockquote', 'br', 'code', 'del', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'li',
  'ol', 'p', 'pre', 'strong', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul',
];
const RULES = { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ['href', 'title', 'start', 'align'] };

/**
 * Show `text`, which is Markdown, in `element`.
 *
 * `base` is the address of a document that `text` is: its links are relative to it, and its lines
 * are wrapped, while a line of an answer is one.
 */
export function renderMarkdown(element, text, base = '') {
  element.innerHTML = DOMPurify.sanitize(marked.parse(text, { breaks: !base }), RULES);
  for (const link of element.querySelectorAll('a')) {
    if (base) link.href = new URL(link.getAttribute('href') ?? '', base);
    link.target = '_blank';
    link.rel = 'noopener noreferrer';
  }
}
