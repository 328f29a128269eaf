"""The parameters of a call: options, dates, checked values, and the site's own fields."""
