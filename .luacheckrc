std = "lua54"
max_line_length = 120
max_comment_line_length = 130
-- A contract keeps parameters that one implementation of it does not need.
unused_args = false
files["spec"] = { std = "+busted", max_line_length = 125 }
files["lua/rouse/meta.lua"] = { ignore = { "241" } } -- declarations only
exclude_files = { "build*/", ".git/" }
