"""The pages as people see them: a real Chromium in front of a real site."""
