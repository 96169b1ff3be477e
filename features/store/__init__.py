"""The feature store (docs/store.md): schema, writer, reader, and the article's layout beside it."""
