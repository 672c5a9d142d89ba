"""Types of elements and scalar arguments: numbers, vectors and structs, their names, layouts and values."""
