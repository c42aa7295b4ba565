"""Problems with graders: what is asked, the reference answer, and how an answer or a step is checked."""
