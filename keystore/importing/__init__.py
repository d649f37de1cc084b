"""Adoption of a tenant_settings table, from another database or in place: plan, apply, verify, scrub.

    source    reads the table by place, byte for byte          classify  what one row is (pure)
    owners    whose row it is, and which tenants are lacking   survey    every row judged, and what is to become of it
    journal   what became of each row                          apply     seals what the journal lacks
    verify    the gates                                        scrub     takes the plain text out of the old table

`importer` is the door; nothing else of the keystore knows this package.
"""
