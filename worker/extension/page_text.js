// Runs in the page that is to be summarised; the value of its last line goes to the popup.

({ title: document.title, text: document.body.innerText });
