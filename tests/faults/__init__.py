"""Kills, disconnects, storms."""
