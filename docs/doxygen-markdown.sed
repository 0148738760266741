# Doxygen 1.9 does not know GitHub's anchors of headings: links within a page become their text.
s/\[([^]]*)\]\(#[a-z0-9-]+\)/\1/g
# Pages outside the reference, which it cannot link to: their text.
s/\[([^]]*)\]\(\.\.\/[^)]*\.md\)/\1/g
