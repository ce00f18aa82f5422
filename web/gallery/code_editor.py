"""The editor of snippets: a text field with indentation, as an editor of code has it.

Runs on MicroPython and on Pyodide.
"""

from pyscript import document

INDENT = "    "


class CodeEditor:
    """Python code in a text field.

    Tab and Shift+Tab indent the selected lines, Enter keeps the indentation; after Escape the next
    Tab leaves the field. All of it can be undone.
    """

    def __init__(self, field):
        self._field = field
        self._leaves = False  # the next Tab moves the focus

    def take_key(self, event):
        """Act on a key that was pressed in the field."""
        leaves, self._leaves = self._leaves, event.key == "Escape"
        if event.isComposing or event.ctrlKey or event.metaKey or event.altKey:
            return
        if event.key == "Tab" and not leaves:
            event.preventDefault()
            self._shift_lines(event.shiftKey)
        elif event.key == "Enter":
            event.preventDefault()
            self._break_line()

    def _break_line(self):
        before = self._field.value[: self._field.selectionStart]
        line = before.split("\n")[-1]
        indent = line[: len(line) - len(line.lstrip())]
        self._type("\n" + indent + (INDENT if line.rstrip().endswith(":") else ""))

    def _shift_lines(self, to_left):
        field = self._field
        start, end = field.selectionStart, field.selectionEnd
        if start == end and not to_left:
            self._type(INDENT)
            return
        text = field.value
        first = text.rfind("\n", 0, start) + 1
        after = text.find("\n", end)
        last = len(text) if after < 0 else after
        shift = _unindented if to_left else _indented
        block = "\n".join([shift(line) for line in text[first:last].split("\n")])
        if block == text[first:last]:
            return
        field.setSelectionRange(first, last)
        self._type(block)
        field.setSelectionRange(first, first + len(block))

    def _type(self, text):
        # In place of setting the value, so that the browser can undo it.
        document.execCommand("insertText", False, text)


def _indented(line):
    return INDENT + line if line else line


def _unindented(line):
    spaces = len(line) - len(line.lstrip(" "))
    return line[min(spaces, len(INDENT)) :]
