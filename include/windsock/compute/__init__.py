"""What a heavy step needs to run, and what this site's cluster offers it.

``site`` reads the site's own defaults, ``needs`` lays a model's wishes over them, and
``memory`` reckons with quantities. Nothing here speaks to a cluster:
``windsock_airflow.pods`` turns needs into pods.
"""

from windsock.compute.needs import PodNeeds, needs_of
from windsock.compute.site import SiteCompute, load_site

__all__ = ["PodNeeds", "SiteCompute", "load_site", "needs_of"]
