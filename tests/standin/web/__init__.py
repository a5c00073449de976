"""A page that plays WhatsApp Web for the unmodified wa-js bundle, and its server."""
