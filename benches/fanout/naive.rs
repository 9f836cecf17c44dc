//! The server that one writes first: a task and a channel a connection, one `send` a message.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tickcast::log::{Catalog, LogItem};
use tickcast::protocol::Encoding;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Sender, channel};
use tokio_tungstenite::tungstenite::Message;

use crate::generator::Generator;
use crate::talk;

/// Messages that may wait for a client; further ones are dropped.
const CHANNEL: usize = 1024;

#[derive(Default)]
struct Shared {
    catalog: Arc<Catalog>,
    subscribers: Vec<Vec<Sender<Message>>>,
}

pub(crate) fn serve(generator: Generator, listener: TcpListener) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let serving = async move {
        let shared = Arc::new(Mutex::new(Shared {
            catalog: Arc::clone(&generator.catalog),
            ..Shared::default()
        }));
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(publish(generator, Arc::clone(&shared)));
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve_one(stream, Arc::clone(&shared)));
        }
    };
    std::thread::Builder::new()
        .name("server".to_owned())
        .spawn(move || runtime.block_on(serving))?
        .join()
        .unwrap_or(Ok(()))
}

async fn publish(mut generator: Generator, shared: Arc<Mutex<Shared>>) {
    loop {
        let log = Arc::clone(&generator.log);
        log.reader(0).notified().await;
        let head = log.head();
        while let Some(batch) = generator.next_before(head) {
            let encoded = batch.encode(Encoding::Msgpack).0;
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.catalog = Arc::clone(&batch.catalog);
            for (at, item) in batch.items.iter().enumerate() {
                let LogItem::Event(event) = item else {
                    continue;
                };
                let Some(subscribers) = shared.subscribers.get(event.topic.index()) else {
                    continue;
                };
                let message = Message::Binary(Bytes::from([&[0x91], encoded.item(at)].concat()));
                for subscriber in subscribers {
                    // A client that doesn't keep up misses it.
                    let _full = subscriber.try_send(message.clone());
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn serve_one(stream: TcpStream, shared: Arc<Mutex<Shared>>) -> Result<()> {
    stream.set_nodelay(true)?;
    let (mut sink, mut requests) = tokio_tungstenite::accept_async(stream).await?.split();
    sink.send(Message::binary(talk::welcome())).await?;
    let (sender, mut receiver) = channel(CHANNEL);
    let own = sender.clone();
    tokio::spawn(async move {
        while let Some(message) = receiver.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    });
    while let Some(Ok(message)) = requests.next().await {
        let catalog = Arc::clone(
            &shared
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .catalog,
        );
        let Some((topics, answer)) = talk::subscribe(&message.into_data(), &catalog) else {
            continue;
        };
        own.send(Message::binary(answer)).await?;
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in topics {
            if shared.subscribers.len() <= topic {
                shared.subscribers.resize_with(topic + 1, Vec::new);
            }
            shared.subscribers[topic].push(sender.clone());
        }
    }
    Ok(())
}
