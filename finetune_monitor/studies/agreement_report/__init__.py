"""The pages that say how well scores agree with people: verdict, tables, figures, images."""
