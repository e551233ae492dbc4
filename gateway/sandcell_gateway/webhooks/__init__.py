"""Telling others when a job has ended (standardwebhooks.com): signed, tried again, remembered."""
