"""The report as a page to read, and pictures with a key: what people look at without a viewer for SR."""
