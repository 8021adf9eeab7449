"""Monitoring: does the champion still see what it was made for, and is it still right?"""
