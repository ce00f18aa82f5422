"""What the chat page shows: messages, progress, statistics and notices.

Runs on MicroPython and on Pyodide; the page's elements are in index.html.
"""

import js
from pyscript import document

RENDER_INTERVAL_MS = 40
PINNED_PX = 60  # so close to the end, the page keeps scrolling with the answer


def element(name):
    """Return the page's element with this id."""
    return document.getElementById(name)


def add(parent, tag, text="", class_name=""):
    """Append a new element with plain text to `parent` and return it."""
    child = document.createElement(tag)
    child.textContent = text
    if class_name:
        child.className = class_name
    parent.append(child)
    return child


def show_state(state, status):
    """Show a state: "loading", "generating", or another of the page's."""
    document.documentElement.dataset.state = state
    element("status").textContent = status
    element("send").hidden = state == "generating"
    element("stop").hidden = state != "generating"
    element("loading").hidden = state != "loading"


class Turn:
    """A question on the page, and the `answer` to it while it grows."""

    def __init__(self, text):
        element("notice").hidden = True
        element("stats").textContent = ""
        self._text = text
        self._question = add_message("user", text)
        self.answer = Answer()

    def take_back(self):
        """Take both off the page; the question can be sent again from the field."""
        element("prompt").value = element("prompt").value or self._text
        self._question.remove()
        self.answer.remove()


class Answer:
    """One answer on the page while it grows."""

    def __init__(self):
        self.text = ""
        self._thoughts = None
        self._finish_reason = None
        self._rendered_at = 0
        self._element = add_message("assistant", "")
        self._element.setAttribute("aria-busy", "true")
        self._body = add(self._element, "div", class_name="markdown")

    def take(self, chunk):
        """Add a chunk's text or thoughts, or show its statistics."""
        for choice in chunk.choices:
            self._think(choice.delta.reasoning_content or "")
            self._say(choice.delta.content or "")
            self._finish_reason = choice.finish_reason or self._finish_reason
        if chunk.usage is not None:
            element("stats").textContent = statistics(chunk.usage)
        now = js.performance.now()
        if now - self._rendered_at >= RENDER_INTERVAL_MS:
            self._rendered_at = now
            self._render()

    def finish(self, reason=None):
        """Show the whole answer, and why it ended if not by itself: its finish_reason."""
        if self._thoughts is not None:
            self._thoughts.close()
        self._render()
        self._element.setAttribute("aria-busy", "false")
        notes = {"abort": "Stopped.", "length": "Ended at the limit of tokens."}
        reason = reason or self._finish_reason
        if reason in notes:
            add(self._element, "p", notes[reason], "cut-off")
        keep_at_end(True)

    def remove(self):
        """Take the answer off the page."""
        self._element.remove()

    def _think(self, text):
        if not text:
            return
        if self._thoughts is None:
            self._thoughts = Thoughts(self._element, self._body)
        self._thoughts.text += text

    def _say(self, text):
        if text and not self.text and self._thoughts is not None:
            self._thoughts.close()
        self.text += text

    def _render(self):
        was_at_end = is_at_end()
        if self._thoughts is not None:
            self._thoughts.render()
        js.renderMarkdown(self._body, self.text)
        keep_at_end(was_at_end)


class Thoughts:
    """What a reasoning model thinks before it answers: open while it grows, then closed."""

    def __init__(self, message, body):
        self.text = ""
        self._details = add(message, "details", class_name="thoughts")
        self._details.open = True
        self._summary = add(self._details, "summary", "Thinking…")
        self._paragraph = add(self._details, "p")
        message.insertBefore(self._details, body)

    def close(self):
        """Fold them up: the answer begins."""
        self._summary.textContent = "Thoughts"
        self._details.open = False

    def render(self):
        """Show the thoughts so far."""
        self._paragraph.textContent = self.text


class LoadProgress:
    """The progress of one load: its phase, or bytes, rate and time left while weights load."""

    def __init__(self):
        element("progress").removeAttribute("value")
        element("progress-text").textContent = "Starting the engine"

    def show(self, report):
        """Show a report of the engine."""
        element("progress").value = report.progress
        parts = [bytes_so_far(report)] if report.get("totalBytes") else [report.text.split(":")[0]]
        if report.get("bytesPerSecond"):
            parts.append(f"{report.bytesPerSecond / 1e6:.1f} MB/s")
        if report.get("remainingSeconds"):
            parts.append(f"{duration(report.remainingSeconds)} left")
        parts.append(f"{report.timeElapsed:.1f} s")
        element("progress-text").textContent = " · ".join(parts)


def bytes_so_far(report):
    """Return how much of a model's weights is fetched or loaded."""
    is_fetching = report.text.startswith("Fetching")
    verb = "Downloading" if is_fetching else "Loading"
    return f"{verb} {report.loadedBytes / 1e6:.1f} of {report.totalBytes / 1e6:.1f} MB"


def duration(seconds):
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def fill_model_list(records):
    """List the site's own models first, then those that are downloaded from elsewhere."""
    for record in records:
        is_own = "://" not in record["model"]
        add_model("On this site" if is_own else "Downloaded from huggingface.co", record)


def add_model(group_label, record):
    """Add a model to a group of the list, which is made if it is not there."""
    size = record.get("vram_required_MB")
    name = record["model_id"].replace("-MLC", "")
    text = f"{name} · {size:.0f} MB" if size else name
    add(model_group(group_label), "option", text).value = record["model_id"]


def model_group(label):
    """Return the group of the model list with this label, made at its end if it is not there."""
    for group in element("model").children:
        if group.label == label:
            return group
    group = add(element("model"), "optgroup")
    group.label = label
    return group


def forget_messages():
    """Take the conversation off the page."""
    element("messages").replaceChildren()
    element("notice").hidden = True
    element("stats").textContent = ""


def add_message(role, text):
    """Append a message to the conversation and return its element."""
    message = add(element("messages"), "div", text, f"message {role}")
    keep_at_end(True)
    return message


def focus_prompt():
    """Let the visitor write, unless that would open a keyboard over the page."""
    if js.matchMedia("(pointer: fine)").matches:
        element("prompt").focus()


def is_at_end():
    """Tell whether the page is scrolled to its end."""
    page = document.documentElement
    return page.scrollHeight - page.scrollTop - page.clientHeight < PINNED_PX


def keep_at_end(wanted):
    """Scroll the page to its end if `wanted`."""
    if wanted:
        document.documentElement.scrollTop = document.documentElement.scrollHeight


def statistics(usage):
    """Return the line under the conversation: times, speeds and counts of the last answer."""
    extra = usage.extra or {}
    parts = []
    if extra.get("time_to_first_token_s") is not None:
        parts.append(f"first token after {extra['time_to_first_token_s']:.2f} s")
    if extra.get("prefill_tokens_per_s"):
        parts.append(f"prefill {extra['prefill_tokens_per_s']:.1f} tokens/s")
    if extra.get("decode_tokens_per_s"):
        parts.append(f"decode {extra['decode_tokens_per_s']:.1f} tokens/s")
    parts.append(f"{usage.prompt_tokens} tokens read, {usage.completion_tokens} written")
    return " · ".join(parts)


def show_notice(title, lines):
    """Show a problem and what can be done about it."""
    notice = element("notice")
    notice.replaceChildren()
    add(notice, "h2", title)
    holder = add(notice, "ul") if len(lines) > 1 else notice
    for line in lines:
        add(holder, "li" if len(lines) > 1 else "p", line)
    notice.hidden = False
    element("welcome").hidden = True
    keep_at_end(True)


def show_error(error):
    """Show an exception: its class as title, its text, which says what to do."""
    name = getattr(error, "name", None) or type(error).__name__
    show_notice(name, (str(error),))
    js.console.error(f"{name}: {error}\n{getattr(error, 'remote_traceback', '')}")
