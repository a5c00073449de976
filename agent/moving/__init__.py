"""A session goes out as one checksummed file and comes in from one, from another program's store,
or as a bot that pm2 runs. No source is written to."""
