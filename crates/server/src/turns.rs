//! Answers of one turn of the event loop are written together, after everything else in it: a reader that is near is woken
//! once and not for each answer, as no work lies between the writes. The pieces of a stream go at once, as somebody waits
//! for each.

use std::cell::Cell;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So many bytes in several parts go in one: to copy them takes less than to hand over several.
const SMALL: usize = 4 << 10;

/// Whether what a connection writes are pieces of a stream.
#[derive(Clone, Default)]
pub(crate) struct Pieces(Arc<AtomicBool>);

impl Pieces {
    pub(crate) fn set(&self, pieces: bool) {
        self.0.store(pieces, Ordering::Relaxed);
    }
}

/// A connection whose first write behind a flush waits until every task that is ready has had its turn, but for pieces.
pub(crate) struct Together<S> {
    inner: S,
    pieces: Pieces,
    /// Since the last flush.
    waited: bool,
}

impl<S> Together<S> {
    pub(crate) fn new(inner: S, pieces: Pieces) -> Self {
        Self { inner, pieces, waited: false }
    }

    fn poll_turn(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.waited || self.pieces.0.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        self.waited = true;
        // A task that wakes itself goes behind all others.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Together<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Together<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        ready!(self.poll_turn(context));
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        ready!(self.poll_turn(context));
        if parts.len() < 2 || parts.iter().map(|part| part.len()).sum::<usize>() > SMALL {
            return Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        }
        thread_local! {
            static WHOLE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let mut whole = WHOLE.take();
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        let written = Pin::new(&mut self.inner).poll_write(context, &whole);
        whole.clear();
        WHOLE.set(whole);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.waited = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Notes when bytes arrive.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<&'static str>>>);

    impl AsyncWrite for Notes {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
            self.0.lock().unwrap().push("written");
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn three(pieces: bool) -> Vec<&'static str> {
        let notes = Notes::default();
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let notes = notes.clone();
                tokio::spawn(async move {
                    let told = Pieces::default();
                    told.set(pieces);
                    let mut stream = Together::new(notes.clone(), told);
                    for _ in 0..2 {
                        notes.0.lock().unwrap().push("computed");
                        stream.write_all(b"one").await.unwrap();
                        stream.write_all(b"more").await.unwrap();
                        stream.flush().await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let notes = notes.0.lock().unwrap();
        notes.clone()
    }

    #[tokio::test]
    async fn answers_of_one_turn_are_written_behind_the_work_of_all() {
        let notes = three(false).await;
        let (computed, written) = (["computed"; 3], ["written"; 2]);
        // The work for a second answer follows the first one's writes, as a client asks only then.
        let turns =
            [&computed[..], &written, &["computed"], &written, &["computed"], &written, &["computed"]];
        assert_eq!(notes[..12], turns.concat());
    }

    #[tokio::test]
    async fn small_parts_go_in_one() {
        /// Keeps what is written, call by call.
        #[derive(Default)]
        struct Calls(Vec<Vec<u8>>);

        impl AsyncWrite for Calls {
            fn poll_write(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<Result<usize>> {
                // Not all of it at once.
                let taken = bytes.len().min(7);
                self.0.push(bytes[..taken].to_vec());
                Poll::Ready(Ok(taken))
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                parts: &[IoSlice<'_>],
            ) -> Poll<Result<usize>> {
                let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
                let length = whole.len();
                self.0.push(whole);
                Poll::Ready(Ok(length))
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
                Poll::Ready(Ok(()))
            }
        }

        let mut stream = Together::new(Calls::default(), Pieces::default());
        let large = vec![1; SMALL];
        let written = stream.write_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")]).await.unwrap();
        assert_eq!((written, stream.inner.0.pop().unwrap()), (7, b"headbod".to_vec()));
        let written = stream.write_vectored(&[IoSlice::new(b"y"), IoSlice::new(&large)]).await.unwrap();
        assert_eq!((written, stream.inner.0.pop().unwrap().len()), (SMALL + 1, SMALL + 1));
        assert!(stream.inner.0.is_empty());
    }

    #[tokio::test]
    async fn pieces_wait_for_nobody() {
        assert_eq!(three(true).await, ["computed", "written", "written"].repeat(6));
    }
}
