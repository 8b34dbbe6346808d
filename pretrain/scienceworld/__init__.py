"""Reading exercises on made-up ScienceWorld rooms and tasks."""
