"""Records in, figures and pages out; never touches a network.

- `figures`: SVG, a file a subject; `style` is what they share.
- `sheets`: grids of pictures with words.
- `pages`: the atlas, a file a page, and other folders of static pages.
- `model_card`: what a stranger has to know of a classifier, as sections and as Markdown.
- `wording`: numbers and lists in words.
"""
