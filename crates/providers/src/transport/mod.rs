//! Connections to vendors: HTTP, server-sent events, WebSockets, and what is done when they fail.
