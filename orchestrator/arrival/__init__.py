"""Files that appear: found, judged whole or not, new or not, and handed on as runs."""
