use super::*;

#[track_caller]
fn check_eviction(ages: &[(u64, u64)], cap: u64, stamp: u64) {
    assert_eq!(eviction_stamp(ages.to_vec(), cap), stamp);
}

#[test]
fn the_oldest_go_until_fifteen_sixteenths_are_left() {
    check_eviction(&[(30, 8), (10, 8), (20, 8)], 16, 30);
    check_eviction(&[(30, 5), (10, 5), (20, 5)], 16, 10);
    check_eviction(&[(30, 5), (10, 6), (20, 5)], 16, 20);
    check_eviction(&[(10, 99)], 16, u64::MAX);
    check_eviction(&[], 16, u64::MAX);
}

#[test]
fn ids_run_out_without_wrapping() {
    let mut grants = Grants { kafka_next: NATIVE_FIRST - 5, native_next: i64::MAX as u64 - 5 };
    assert_eq!(grants.take(6, ProducerWindow::Kafka), None);
    assert_eq!(grants.take(5, ProducerWindow::Kafka), Some(ProducerId::new(NATIVE_FIRST - 5)));
    assert_eq!(grants.take(1, ProducerWindow::Kafka), None);
    assert_eq!(grants.take(6, ProducerWindow::Native), None);
    assert_eq!(grants.take(5, ProducerWindow::Native), Some(ProducerId::new(i64::MAX as u64 - 5)));
}
