"""Writes the databases beside it, for tests: pip install mmdb_writer, then python3 countries.py."""

from pathlib import Path

from mmdb_writer import MMDBWriter
from netaddr import IPSet

HERE = Path(__file__).parent


def write(name, kind, records):
    writer = MMDBWriter(6, kind, languages=["en"], description="For tests", ipv4_compatible=True)
    for networks, record in records:
        writer.insert_network(IPSet(networks), record)
    writer.to_db_file(str(HERE / name))


write("countries.mmdb", "Test-Country", [
    (["192.0.2.0/24"], {"country": {"iso_code": "IT", "names": {"en": "Italy"}}}),
    (["198.51.100.0/24"], {"country": {"iso_code": "US", "names": {"en": "United States"}}}),
    (["203.0.113.0/25"], {"registered_country": {"iso_code": "NG"}}),
    (["203.0.113.128/25"], {"country_code": "BR", "country": "Brazil"}),
    (["2001:db8:1::/48"], {"country": {"iso_code": "DE"}}),
])
write("networks.mmdb", "Test-ASN", [(["192.0.2.0/24"], {"autonomous_system_number": 64500})])
