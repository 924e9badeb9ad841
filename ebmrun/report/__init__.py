"""Many runs on one page: what a folder holds, statistics over seeds, figures, and the pages that show them."""
