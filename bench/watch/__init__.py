"""``watch``: is the monitor quiet where nothing has changed, and loud where something has?"""
