"""Speed and safety of data sets and trajectory stores."""
