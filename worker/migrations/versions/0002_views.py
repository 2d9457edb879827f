"""The views for operations, interface version 1 (deploy/docs/sql.md): one text for both databases.

What the two spell differently is written as a function in capitals and put in their words by `_in_words_of`.
"""

from __future__ import annotations

import re

from alembic import op

from worker.errors import DatabaseError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SPELLING = {
    "sqlite": {
        "HOUR": r"strftime('%Y-%m-%d %H:00:00', \1)",
        "DAY": r"strftime('%Y-%m-%d', \1)",
        "SECONDS": r"ROUND((julianday(\2) - julianday(\1)) * 86400.0, 3)",
        # As the columns are stored: text to the microsecond, so that text order is time order.
        "NOW": r"(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')",
        "HEX4": r"printf('0x%04X', \1)",
        "FIRST_OF_FIRST": r"json_extract(\1, '$[0][0]')",
    },
    "postgresql": {
        "HOUR": r"date_trunc('hour', \1, 'UTC')",
        "DAY": r"CAST(\1 AT TIME ZONE 'UTC' AS date)",
        "SECONDS": r"CAST(ROUND(CAST(EXTRACT(EPOCH FROM (\2) - (\1)) AS numeric), 3) AS double precision)",
        "NOW": r"statement_timestamp()",
        "HEX4": r"'0x' || lpad(upper(to_hex(\1)), 4, '0')",
        "FIRST_OF_FIRST": r"(\1 -> 0 ->> 0)",
    },
}
ARGUMENT = r"([\w.]+|NOW\(\)|MIN\([\w.]+\))"
CALL = {
    "HOUR": rf"\bHOUR\({ARGUMENT}\)",
    "DAY": rf"\bDAY\({ARGUMENT}\)",
    "SECONDS": rf"\bSECONDS\({ARGUMENT}, {ARGUMENT}\)",
    "NOW": r"\bNOW\(\)",
    "HEX4": rf"\bHEX4\({ARGUMENT}\)",
    "FIRST_OF_FIRST": rf"\bFIRST_OF_FIRST\({ARGUMENT}\)",
    "DELIVERED_AT": rf"\bDELIVERED_AT\({ARGUMENT}\)",
    "DELIVERED_BEFORE": rf"\bDELIVERED_BEFORE\({ARGUMENT}\)",
}
# When the last required destination accepted a report; NULL while one is missing, or none is required.
DELIVERED_AT = r"""(
    SELECT CASE
        WHEN COUNT(*) = SUM(CASE WHEN d.state IN ('ACCEPTED', 'COMMITTED') THEN 1 ELSE 0 END)
        THEN MAX(d.accepted_at)
    END
    FROM deliveries d
    WHERE d.report_id = \1 AND d.required
)"""
# What destinations hold of a study that is withheld now; NULL when they hold nothing.
DELIVERED_BEFORE = r"""(
    SELECT 'report revision ' || MAX(r.revision) || ' was delivered before, and stands at its destination'
    FROM reports r JOIN deliveries d ON d.report_id = r.id
    WHERE r.study_id = \1 AND d.state IN ('ACCEPTED', 'COMMITTED')
)"""

VIEWS = {
    "v_results": """
SELECT
    s.study_instance_uid,
    i.series_instance_uid,
    i.sop_instance_uid,
    COALESCE(f.frame_number, 1) AS frame_number,
    s.accession_number,
    CASE WHEN f.id IS NULL THEN FIRST_OF_FIRST(i.lateralities) ELSE f.laterality END AS laterality,
    i.camera,
    COALESCE(f.route, i.route) AS route,
    CASE WHEN f.id IS NULL THEN i.adapter ELSE f.adapter END AS adapter,
    b.bundle_id,
    f.grade,
    f.grade_label,
    f.referable,
    f.referable_probability,
    f.certainty,
    f.quality,
    i.state,
    COALESCE(i.reason_code, f.reason_code, f.laterality_reason, s.withheld_reason) AS reason_code,
    i.received_at,
    i.analysed_at,
    r.written_at AS reported_at,
    DELIVERED_AT(r.id) AS delivered_at,
    (
        i.state = 'ANALYSED' AND f.id IS NOT NULL
        AND COALESCE(i.reason_code, f.reason_code, f.laterality_reason, s.withheld_reason) IS NULL
    ) AS reported,
    i.manufacturer,
    i.model_name,
    i.reason_detail,
    f.engine,
    f.decode_ms,
    f.prepare_ms,
    f.engine_ms,
    i.id AS instance_id
FROM instances i
JOIN studies s ON s.id = i.study_id
LEFT JOIN bundles b ON b.active
LEFT JOIN findings f ON f.instance_id = i.id AND f.bundle_pk = b.id AND i.state = 'ANALYSED'
LEFT JOIN reports r ON r.study_id = i.study_id AND r.bundle_pk = b.id AND r.state = 'WRITTEN'
    AND r.content_version >= i.content_version
""",
    "v_eye_results": """
SELECT
    s.study_instance_uid,
    s.accession_number,
    e.laterality,
    e.grade,
    e.grade_label,
    e.referable,
    e.referable_probability,
    e.certainty,
    e.quality,
    e.reason_code,
    e.images,
    e.images_used,
    r.sop_instance_uid AS report_sop_instance_uid,
    r.revision,
    r.partial,
    b.bundle_id,
    r.written_at AS reported_at,
    DELIVERED_AT(r.id) AS delivered_at
FROM reports r
JOIN studies s ON s.id = r.study_id
JOIN bundles b ON b.id = r.bundle_pk
JOIN eye_results e ON e.report_id = r.id
WHERE r.state = 'WRITTEN'
""",
    "v_backlog": """
SELECT 'images_waiting' AS kind, NULL AS destination, COUNT(*) AS items,
    SECONDS(MIN(received_at), NOW()) AS oldest_age_s
FROM instances WHERE state = 'RECEIVED' AND claim_expires_at IS NULL
UNION ALL
SELECT 'images_claimed', NULL, COUNT(*), SECONDS(MIN(received_at), NOW())
FROM instances WHERE state = 'RECEIVED' AND claim_expires_at >= NOW()
UNION ALL
SELECT 'images_claim_overdue', NULL, COUNT(*), SECONDS(MIN(claim_expires_at), NOW())
FROM instances WHERE state = 'RECEIVED' AND claim_expires_at < NOW()
UNION ALL
SELECT 'studies_open', NULL, COUNT(*), SECONDS(MIN(opened_at), NOW())
FROM studies WHERE state = 'OPEN'
UNION ALL
SELECT 'studies_unreported', NULL, COUNT(*), SECONDS(MIN(closed_at), NOW())
FROM studies WHERE state = 'CLOSED' AND reported_version < content_version AND withheld_reason IS NULL
UNION ALL
SELECT 'deliveries_pending', destination, COUNT(*), SECONDS(MIN(created_at), NOW())
FROM deliveries WHERE state = 'PENDING' GROUP BY destination
""",
    "v_throughput_hourly": """
SELECT
    hour,
    SUM(CASE WHEN what = 'received' THEN 1 ELSE 0 END) AS received,
    SUM(CASE WHEN what = 'analysed' THEN 1 ELSE 0 END) AS analysed,
    SUM(CASE WHEN what = 'refused' THEN 1 ELSE 0 END) AS refused,
    SUM(CASE WHEN what = 'reported' THEN 1 ELSE 0 END) AS reported,
    SUM(CASE WHEN what = 'delivered' THEN 1 ELSE 0 END) AS delivered
FROM (
    SELECT HOUR(received_at) AS hour, 'received' AS what FROM instances
    UNION ALL
    SELECT HOUR(analysed_at), 'analysed' FROM instances WHERE state = 'ANALYSED'
    UNION ALL
    SELECT HOUR(ended_at), 'refused'
    FROM (SELECT COALESCE(analysed_at, received_at) AS ended_at FROM instances WHERE state = 'REFUSED') x
    UNION ALL
    SELECT HOUR(written_at), 'reported' FROM reports WHERE written_at IS NOT NULL
    UNION ALL
    SELECT HOUR(delivered_at), 'delivered'
    FROM (SELECT DELIVERED_AT(r.id) AS delivered_at FROM reports r WHERE r.written_at IS NOT NULL) y
    WHERE delivered_at IS NOT NULL
) z
GROUP BY hour
""",
    "v_latency_hourly": """
SELECT
    hour,
    stage,
    MAX(total) AS items,
    MIN(CASE WHEN place * 100 >= total * 50 THEN seconds END) AS p50_s,
    MIN(CASE WHEN place * 100 >= total * 95 THEN seconds END) AS p95_s,
    MAX(seconds) AS max_s
FROM (
    SELECT
        hour, stage, seconds,
        ROW_NUMBER() OVER (PARTITION BY hour, stage ORDER BY seconds) AS place,
        COUNT(*) OVER (PARTITION BY hour, stage) AS total
    FROM (
        SELECT HOUR(analysed_at) AS hour, 'received_to_analysed' AS stage,
            SECONDS(received_at, analysed_at) AS seconds
        FROM instances WHERE state = 'ANALYSED'
        UNION ALL
        SELECT HOUR(r.written_at), 'last_image_to_reported', SECONDS(s.last_image_at, r.written_at)
        FROM reports r JOIN studies s ON s.id = r.study_id
        WHERE r.state = 'WRITTEN' AND r.written_at >= s.last_image_at
        UNION ALL
        SELECT HOUR(delivered_at), 'reported_to_delivered', SECONDS(written_at, delivered_at)
        FROM (
            SELECT r.written_at, DELIVERED_AT(r.id) AS delivered_at FROM reports r
            WHERE r.written_at IS NOT NULL
        ) y
        WHERE delivered_at IS NOT NULL
    ) spans
) ranked
GROUP BY hour, stage
""",
    "v_cameras": """
SELECT
    camera, manufacturer, model, route,
    COUNT(*) AS images,
    MAX(received_at) AS last_seen,
    SUM(CASE WHEN state = 'ANALYSED' AND fit THEN 1 ELSE 0 END) AS graded,
    SUM(CASE WHEN state = 'ANALYSED' AND NOT fit THEN 1 ELSE 0 END) AS withheld,
    SUM(CASE WHEN state = 'REFUSED' THEN 1 ELSE 0 END) AS refused
FROM (
    SELECT
        i.camera, i.manufacturer, i.model_name AS model, i.route, i.received_at, i.state,
        (
            s.withheld_reason IS NULL AND EXISTS (
                SELECT 1 FROM findings f JOIN bundles b ON b.id = f.bundle_pk AND b.active
                WHERE f.instance_id = i.id AND f.reason_code IS NULL AND f.laterality_reason IS NULL
            )
        ) AS fit
    FROM instances i JOIN studies s ON s.id = i.study_id
) x
GROUP BY camera, manufacturer, model, route
""",
    "v_camera_drift": """
SELECT
    i.camera,
    DAY(i.received_at) AS day,
    COUNT(*) AS images,
    AVG(f.mean_red) AS mean_red,
    AVG(f.mean_green) AS mean_green,
    AVG(f.mean_blue) AS mean_blue,
    AVG(f.field_fraction) AS field_fraction,
    AVG(f.quality) AS quality,
    CAST(AVG(CASE WHEN f.referable THEN 1.0 WHEN NOT f.referable THEN 0.0 END) AS DOUBLE PRECISION)
        AS referable_rate,
    CAST(AVG(CASE WHEN f.grade IS NULL THEN 1.0 ELSE 0.0 END) AS DOUBLE PRECISION) AS ungradable_rate,
    b.bundle_id
FROM findings f
JOIN bundles b ON b.id = f.bundle_pk AND b.active
JOIN instances i ON i.id = f.instance_id AND i.state = 'ANALYSED'
GROUP BY i.camera, DAY(i.received_at), b.bundle_id
""",
    "v_failures": """
SELECT 'image_refused' AS kind, s.study_instance_uid, i.sop_instance_uid, s.accession_number,
    NULL AS destination, i.reason_code, i.reason_detail AS detail,
    COALESCE(i.analysed_at, i.received_at) AS since
FROM instances i JOIN studies s ON s.id = i.study_id WHERE i.state = 'REFUSED'
UNION ALL
SELECT 'study_withheld', s.study_instance_uid, NULL, s.accession_number,
    NULL, s.withheld_reason, DELIVERED_BEFORE(s.id), s.last_image_at
FROM studies s WHERE s.withheld_reason IS NOT NULL
UNION ALL
SELECT 'study_overdue', study_instance_uid, NULL, accession_number, NULL, NULL, last_error, report_deadline_at
FROM studies
WHERE state = 'CLOSED' AND reported_version < content_version AND withheld_reason IS NULL
    AND report_deadline_at <= NOW()
UNION ALL
SELECT 'report_failing', study_instance_uid, NULL, accession_number, NULL, NULL, last_error, closed_at
FROM studies
WHERE state = 'CLOSED' AND reported_version < content_version AND withheld_reason IS NULL
    AND attempts >= 3 AND (report_deadline_at IS NULL OR report_deadline_at > NOW())
UNION ALL
SELECT 'delivery_dead', s.study_instance_uid, r.sop_instance_uid, s.accession_number,
    d.destination, d.reason_code, d.reason_detail, d.due_at
FROM deliveries d JOIN reports r ON r.id = d.report_id JOIN studies s ON s.id = r.study_id
WHERE d.state = 'DEAD' AND r.state = 'WRITTEN'
UNION ALL
SELECT 'delivery_overdue', s.study_instance_uid, r.sop_instance_uid, s.accession_number,
    d.destination, d.reason_code, d.reason_detail, d.created_at
FROM deliveries d JOIN reports r ON r.id = d.report_id JOIN studies s ON s.id = r.study_id
WHERE d.state = 'PENDING' AND r.state = 'WRITTEN' AND s.withheld_reason IS NULL
    AND SECONDS(d.created_at, NOW()) > 900
""",
    "v_rejections": """
SELECT
    id, kind, reason_code,
    CASE WHEN status IS NOT NULL THEN HEX4(status) END AS status,
    calling_ae, called_ae, peer_host, sop_class_uid, sop_instance_uid, transfer_syntax_uid,
    detail, count, first_at, last_at
FROM rejections
""",
    "v_deliveries": """
SELECT
    s.study_instance_uid,
    s.accession_number,
    r.sop_instance_uid AS report_sop_instance_uid,
    r.revision,
    d.destination,
    d.state,
    d.attempts,
    d.due_at,
    d.reason_code,
    d.accepted_at,
    d.committed_at,
    d.required,
    d.reason_detail,
    r.state AS report_state,
    b.bundle_id,
    d.created_at,
    d.id AS delivery_id
FROM deliveries d
JOIN reports r ON r.id = d.report_id
JOIN studies s ON s.id = r.study_id
JOIN bundles b ON b.id = r.bundle_pk
""",
}


def _in_words_of(dialect: str, query: str) -> str:
    """Put the functions in capitals in one database's words; NOW last, as it may be another's argument."""
    spelling = {"DELIVERED_AT": DELIVERED_AT, "DELIVERED_BEFORE": DELIVERED_BEFORE, **SPELLING[dialect]}
    for name in sorted(CALL, key="NOW".__eq__):
        query = re.sub(CALL[name], spelling[name], query)
    return query.strip()


def upgrade() -> None:
    """Make the views; the program itself reads tables, so nothing else changes."""
    dialect = op.get_bind().dialect.name
    for name, query in VIEWS.items():
        op.get_bind().exec_driver_sql(f"CREATE VIEW {name} AS\n{_in_words_of(dialect, query)}")


def downgrade() -> None:
    """Refuse, as everywhere."""
    raise DatabaseError("the schema cannot go back; restore the backup that was made before the upgrade")
