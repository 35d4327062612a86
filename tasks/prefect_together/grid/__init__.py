"""A table as it is found (path, address, pasted text, workbook, DataFrame) read into columns and cells of text.

Uses `request` and `clips`. No Prefect; nothing is checked but the form, and which columns mean something.
"""
