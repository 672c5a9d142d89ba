"""Suites that a third party's code can be held against. They need ``pytest``; nothing else in apyfal imports them."""
