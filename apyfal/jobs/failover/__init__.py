"""Several devices that take jobs from one queue; what a lost one had under way runs on another."""
