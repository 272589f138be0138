#!/usr/bin/env python3
"""Makes the small bases of this folder, which `conf/pages` has copies of: pip install mmdb_writer, then run it here.

The countries and networks are made up: addresses of this machine and of documentation.
"""

from netaddr import IPSet
from mmdb_writer import MMDBWriter


def base(name, kind, networks):
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type=kind,
                        languages=["en"], description="for tests", int_type="u32")
    for network, data in networks.items():
        writer.insert_network(IPSet([network]), data)
    writer.to_db_file(name)


def place(continent, country=None):
    data = {"continent": {"code": continent, "names": {"en": "somewhere"}}}
    if country:
        data["country"] = {"iso_code": country, "names": {"en": "a country"}}
    return data


COUNTRIES = {
    "127.0.0.2/32": place("EU", "DE"),
    "127.0.0.3/32": place("EU", "FR"),
    "127.0.0.4/32": place("AS"),
    "192.0.2.0/24": place("NA", "US"),
    "2001:db8::/33": place("EU", "DE"),
}

base("country.mmdb", "Test-Country", COUNTRIES)
base("moved.mmdb", "Test-City", COUNTRIES | {"127.0.0.2/32": place("EU", "FR")})
base("asn.mmdb", "Test-ASN", {
    "127.0.0.2/32": {"autonomous_system_number": 64496, "autonomous_system_organization": "a"},
    "192.0.2.0/24": {"autonomous_system_number": 64497, "autonomous_system_organization": "b"},
})
