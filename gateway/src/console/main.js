// Placeholder: the console takes its place.
