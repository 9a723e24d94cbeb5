"""Writes a llama model of eight layers with random weights, small enough to be made in a second and run on one core, and large
enough that a long answer takes a few seconds.

Its text is noise; what it speaks over HTTP is what a real model speaks. The same file comes out every time.

    python tiny_gguf.py OUT.gguf
"""

import sys

import gguf
import numpy as np

CONTEXT = 4096
WIDTH = 256
HEADS = 4
LAYERS = 8
INNER = 1024
WORDS = (
    "room door key window table lamp chair floor wall stair hall corner garden river bridge road house light shadow "
    "morning evening quiet slow small large open closed long short near far old new first last under over between"
).split()

# A llama vocabulary: three marks, every byte, a blank, and words that begin with a blank.
BLANK = "\u2581"
MARKS = [b"<unk>", b"<s>", b"</s>"]
BYTES = [f"<0x{byte:02X}>".encode() for byte in range(256)]
PLAIN = [BLANK.encode()] + [(BLANK + word).encode() for word in WORDS]
TOKENS = MARKS + BYTES + PLAIN
UNKNOWN, CONTROL, BYTE, NORMAL = 2, 3, 6, 1
KINDS = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * len(BYTES) + [NORMAL] * len(PLAIN)

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def header(out: gguf.GGUFWriter) -> None:
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(INNER)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_vocab_size(len(TOKENS))
    out.add_file_type(0)
    out.add_tokenizer_model("llama")
    out.add_token_list(TOKENS)
    out.add_token_scores([0.0] * len(TOKENS))
    out.add_token_types(KINDS)
    out.add_unk_token_id(0)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_chat_template(TEMPLATE)


def weights(out: gguf.GGUFWriter) -> None:
    dice = np.random.default_rng(20261101)

    def noise(*shape: int) -> np.ndarray:
        return (dice.standard_normal(shape) * 0.1).astype(np.float32)

    ones = np.ones(WIDTH, np.float32)
    # Words win over bytes and over the end of the answer, so an answer is as long as it is asked to be.
    choice = noise(len(TOKENS), WIDTH)
    words_begin = len(TOKENS) - len(WORDS)
    choice[:words_begin] = 0
    choice[words_begin:] *= 20
    out.add_tensor("token_embd.weight", noise(len(TOKENS), WIDTH))
    out.add_tensor("output_norm.weight", ones)
    out.add_tensor("output.weight", choice)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        out.add_tensor(block + "attn_norm.weight", ones)
        out.add_tensor(block + "ffn_norm.weight", ones)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            out.add_tensor(f"{block}{part}.weight", noise(WIDTH, WIDTH))
        out.add_tensor(block + "ffn_gate.weight", noise(INNER, WIDTH))
        out.add_tensor(block + "ffn_up.weight", noise(INNER, WIDTH))
        out.add_tensor(block + "ffn_down.weight", noise(WIDTH, INNER))


def main() -> None:
    out = gguf.GGUFWriter(sys.argv[1], "llama")
    header(out)
    weights(out)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    main()
