"""The part of the plugin that does the work between pytest and the lab; `plugin` only decides when it is needed."""
