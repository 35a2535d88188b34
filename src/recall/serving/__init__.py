"""What every HTTP service of the house needs: tokens, bounded requests, a server that starts and stops cleanly.

What a service answers is its own. It needs the extra `serve`, which is imported when a service starts.
"""
