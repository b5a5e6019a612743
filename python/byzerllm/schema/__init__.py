"""JSON Schemas: of functions and classes, made enforceable; and the JSON that models write, read and checked.

Nothing here is imported with the package; pydantic is loaded by the first call that needs it.
"""
