"""The demo: ``plan`` chooses the days, ``loop`` drives the stack through them, ``report`` tells the tale."""
