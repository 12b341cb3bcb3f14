//! Recovery, and the thread as a whole, over real files.

use super::*;
