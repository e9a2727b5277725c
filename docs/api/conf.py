"""How Sphinx makes the API reference; tools/build_api.sh calls it. The pages come from the package's docstrings."""
from sphinx.util.nodes import make_refnode

import mmseg_semi

project = 'mmseg_semi'
author = copyright = 'The mmseg_semi Authors'
release = mmseg_semi.__version__

extensions = ['sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
autodoc_default_options = {
    'members': True,
    'show-inheritance': True,
    # A package lists what it imports in __all__; each class is described once, where it is written.
    'ignore-module-all': True,
}
autodoc_inherit_docstrings = False  # mmseg's are not ours to mend
autodoc_member_order = 'bysource'
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
highlight_language = 'none'  # literal blocks are equations
html_theme = 'alabaster'
html_theme_options = {'page_width': '1100px', 'sidebar_width': '300px'}
html_show_copyright = html_show_sourcelink = False


def find_by_name(app, env, node, contnode):
    """Makes ``:class:`PCR``` a link: Sphinx itself finds such a bare name only in the module that holds it."""
    objects = env.get_domain('py').objects
    found = {name for name in objects if name.rpartition('.')[2] == node.get('reftarget')}
    if node.get('refdomain') != 'py' or len(found) != 1:
        return None
    name = found.pop()
    return make_refnode(app.builder, node['refdoc'], objects[name].docname, objects[name].node_id, contnode, name)


def setup(app):
    """Called by Sphinx."""
    app.connect('missing-reference', find_by_name)
