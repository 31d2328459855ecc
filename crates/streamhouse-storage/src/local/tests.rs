use super::*;

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn payload(text: &'static str) -> Payload {
    Payload::from(Bytes::from_static(text.as_bytes()))
}

fn files_in(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn a_put_leaves_nothing_but_the_object() {
    let dir = tempfile::tempdir().unwrap();
    let blob = LocalBlob::open(dir.path().join("deep/store")).await.unwrap();
    blob.put(&key("a/b/c"), &payload("x")).await.unwrap();
    assert!(matches!(blob.put(&key("a/b/c"), &payload("y")).await, Err(BlobError::AlreadyExists)));
    let root = dir.path().join("deep/store");
    assert_eq!(fs::read(root.join("a/b/c")).unwrap(), b"x");
    assert_eq!(files_in(&root.join(STAGING)), 0);
}

#[tokio::test]
async fn what_a_crash_left_of_a_write_is_no_object_and_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let blob = LocalBlob::open(dir.path().to_owned()).await.unwrap();
    let left = dir.path().join(STAGING).join("4711-0");
    fs::write(&left, b"half").unwrap();
    assert!(blob.list(&Prefix::root(), None).await.unwrap().objects.is_empty());
    LocalBlob::open(dir.path().to_owned()).await.unwrap();
    assert!(!left.exists());
}

#[tokio::test]
async fn another_process_that_opens_the_folder_spares_a_write_that_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let blob = LocalBlob::open(dir.path().to_owned()).await.unwrap();
    let path = dir.path().join(STAGING).join("4711-0");
    let file = File::create_new(&path).unwrap();
    file.try_lock().unwrap();
    LocalBlob::open(dir.path().to_owned()).await.unwrap();
    assert!(path.exists());
    drop(blob);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_open_the_folder_at_once_remove_the_same_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(STAGING)).unwrap();
    for number in 0..2_000 {
        fs::write(dir.path().join(STAGING).join(format!("4711-{number}")), b"half").unwrap();
    }
    let opening = (0..8).map(|_| tokio::spawn(LocalBlob::open(dir.path().to_owned())));
    for opened in futures::future::join_all(opening).await {
        opened.unwrap().unwrap();
    }
    assert_eq!(fs::read_dir(dir.path().join(STAGING)).unwrap().count(), 0);
}

#[tokio::test]
async fn a_leftover_with_the_name_of_a_new_staging_file_is_stepped_over() {
    let dir = tempfile::tempdir().unwrap();
    let blob = LocalBlob::open(dir.path().to_owned()).await.unwrap();
    fs::write(dir.path().join(STAGING).join(format!("{}-0", std::process::id())), b"half").unwrap();
    blob.put(&key("a"), &payload("x")).await.unwrap();
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"x");
}

#[tokio::test]
async fn folders_that_somebody_removed_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let blob = LocalBlob::open(root.clone()).await.unwrap();
    blob.put(&key("a/b"), &payload("x")).await.unwrap();
    fs::remove_dir_all(root.join("a")).unwrap();
    blob.put(&key("a/b"), &payload("y")).await.unwrap();
    assert_eq!(fs::read(root.join("a/b")).unwrap(), b"y");
    fs::remove_dir_all(root.join(STAGING)).unwrap();
    blob.put(&key("c"), &payload("z")).await.unwrap();
    assert_eq!(fs::read(root.join("c")).unwrap(), b"z");
}

#[tokio::test]
async fn a_root_that_was_moved_away_is_not_made_anew_and_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (root, away) = (dir.path().join("store"), dir.path().join("away"));
    let blob = LocalBlob::open(root.clone()).await.unwrap();
    assert!(!root.exists(), "nothing is made before there is something to write");
    assert!(matches!(blob.head(&key("a/b")).await, Err(BlobError::NotFound)));
    blob.put(&key("a/b"), &payload("x")).await.unwrap();
    fs::rename(&root, &away).unwrap();
    for made in [false, true] {
        if made {
            // As the place where a disk is mounted.
            fs::create_dir(&root).unwrap();
        }
        for name in ["a/b", "c"] {
            let error = blob.put(&key(name), &payload("y")).await.unwrap_err();
            assert!(error.is_retryable() && !error.may_have_happened(), "{error:?}");
        }
        assert!(matches!(blob.head(&key("a/b")).await, Err(BlobError::NotHappened(_))));
        assert!(matches!(blob.get_range(&key("a/b"), 0..1, 1).await, Err(BlobError::NotHappened(_))));
        assert!(matches!(blob.delete(&key("a/b")).await, Err(BlobError::NotHappened(_))));
        assert!(matches!(blob.list(&Prefix::root(), None).await, Err(BlobError::NotHappened(_))));
        assert_eq!(root.exists(), made);
    }
    assert_eq!(files_in(&root), 0);
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    blob.put(&key("c"), &payload("y")).await.unwrap();
    assert_eq!(blob.list(&Prefix::root(), None).await.unwrap().objects.len(), 2);
}

#[tokio::test]
async fn a_file_in_the_place_of_a_folder_is_told_as_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let blob = LocalBlob::open(dir.path().to_owned()).await.unwrap();
    blob.put(&key("a"), &payload("x")).await.unwrap();
    let error = blob.put(&key("a/b"), &payload("x")).await.unwrap_err();
    assert!(!error.is_retryable() && !error.may_have_happened(), "{error:?}");
    fs::write(dir.path().join("file"), b"").unwrap();
    assert!(LocalBlob::open(dir.path().join("file")).await.is_err());
}

#[test]
fn a_full_disk_is_told_as_such() {
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    let error = Disk::default().write(&mut full, &payload("x")).unwrap_err();
    assert!(matches!(write_error(error), BlobError::NoSpace(Some(_))));
}

#[test]
fn a_write_that_failed_leaves_no_staging_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("staged");
    fs::write(&path, b"half").unwrap();
    drop(Staged { path: path.clone() });
    assert!(!path.exists());
}

#[tokio::test]
async fn a_listing_is_in_the_order_of_keys_and_shows_keys_only() {
    let dir = tempfile::tempdir().unwrap();
    let blob = LocalBlob::open(dir.path().to_owned()).await.unwrap();
    // '-' and '.' sort before '/', '0' after it.
    for name in ["a/x", "a-b", "a.b", "a0", "a/b/c", "b"] {
        blob.put(&key(name), &payload("x")).await.unwrap();
    }
    fs::write(dir.path().join("not a key"), b"").unwrap();
    fs::write(dir.path().join(".hidden"), b"").unwrap();
    let names =
        |page: Page| page.objects.into_iter().map(|object| object.key.to_string()).collect::<Vec<_>>();
    let all = names(blob.list(&Prefix::root(), None).await.unwrap());
    assert_eq!(all, ["a-b", "a.b", "a/b/c", "a/x", "a0", "b"]);
    for after in 0..all.len() {
        let rest = names(blob.list(&Prefix::root(), Some(&all[after])).await.unwrap());
        assert_eq!(rest, all[after + 1..], "after {}", all[after]);
    }
}

#[tokio::test]
async fn a_read_is_cut_at_block_boundaries() {
    let dir = tempfile::tempdir().unwrap();
    let blob = LocalBlob::open(dir.path().to_owned()).await.unwrap();
    blob.put(&key("a"), &payload("0123456789abcdef")).await.unwrap();
    let pieces = blob.get_range(&key("a"), 2..13, 5).await.unwrap();
    assert_eq!(pieces, [&b"234"[..], b"56789", b"abc"]);
}

#[tokio::test]
async fn a_read_waits_for_its_place_and_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let blob = LocalBlob::open(dir.path().to_owned()).await.unwrap();
    blob.put(&key("a"), &payload("0123")).await.unwrap();
    let others =
        Arc::clone(&blob.reads).acquire_many_owned(u32::try_from(READS_AT_ONCE).unwrap()).await.unwrap();
    let name = key("a");
    let mut read = std::pin::pin!(blob.get_range(&name, 0..4, 5));
    for _ in 0..10 {
        assert!(futures::poll!(&mut read).is_pending());
        tokio::task::yield_now().await;
    }
    drop(others);
    assert_eq!(read.await.unwrap().concat(), b"0123");
    for cut in [5, u64::MAX] {
        let read = blob.get_range(&name, 0..u64::MAX, cut).await;
        assert!(matches!(read, Err(BlobError::OutOfRange)), "{read:?}");
    }
    assert_eq!(blob.reads.available_permits(), READS_AT_ONCE);
}
