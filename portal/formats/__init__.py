"""Formats of dates and times where Django chooses them (FORMAT_MODULE_PATH): one package a language."""
