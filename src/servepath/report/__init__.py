"""One result model, written as JSON, JUnit, Markdown and HTML."""
