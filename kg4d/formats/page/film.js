"use strict";
// A film as kg4d/formats/page/packing.py packs it: a header in JSON, and blocks of numbers and pictures behind it.

const SECOND_HARMONICS = [0.5462742152960396, 0.31539156525252005, 1.0925484305920792];
const FIRST_HARMONIC = 0.4886025119029199;

async function inflated(text) {
  const raw = atob(text.trim());
  const bytes = Uint8Array.from(raw, (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}

const TYPES = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, f4: Float32Array };

class Film {
  constructor(buffer) {
    const size = new DataView(buffer).getUint32(4, true);
    this.buffer = buffer;
    this.header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
    this.start = 8 + size + (-(8 + size) & 3);
    const { counts, blocks } = this.header;
    this.frames = counts.length;
    this.offsets = counts.map((_, frame) => counts.slice(0, frame).reduce((sum, count) => sum + count, 0));
    this.most = Math.max(...counts);
    for (const [name, block] of Object.entries(blocks))
      this[name] = new TYPES[block.type](buffer, this.start + block.offset, block.length);
    const room = (width) => new Float32Array(this.most * width);
    this.pose = { count: 0, means: room(3), covariances: room(6), rgb: room(3), alphas: room(1), moved: room(1), row: 0 };
  }

  get linked() { return this.header.linked; } // the same Gaussians, in the same order, in all frames

  picture(block) { return new Blob([new Uint8Array(this.buffer, this.start + block.offset, block.length)], { type: "image/webp" }); }

  // where the rows of a frame begin in a block that may be the same for all frames
  row(name, frame) { return this.header.blocks[name].once ? 0 : this.offsets[frame]; }

  // Work out the Gaussians at a place in time, in frames; between two of them they are interpolated if they are linked.
  at(place) {
    const { pose, header } = this;
    const a = Math.min(Math.floor(place), this.frames - 1);
    const b = Math.min(a + 1, this.frames - 1);
    const w = this.linked ? place - a : 0;
    const count = header.counts[a];
    const [low, high] = header.box;
    const step = low.map((value, axis) => (high[axis] - value) / 65535);
    const scaleStep = (header.log_scales[1] - header.log_scales[0]) / 65535;
    const rows = (name) => [this.row(name, a), this.row(name, w ? b : a)];
    const [ma, mb] = rows("means"), [qa, qb] = rows("quats"), [sa, sb] = rows("scales");
    const [ca, cb] = rows("colors"), [oa, ob] = rows("opacities");
    const { means, quats, scales, colors, opacities } = this;
    const v = 1 - w;
    for (let i = 0; i < count; i++) {
      let moved = 0;
      for (let k = 0; k < 3; k++) {
        const now = v * means[3 * (ma + i) + k] + w * means[3 * (mb + i) + k];
        pose.means[3 * i + k] = low[k] + step[k] * now;
        if (this.linked) moved += (step[k] * (now - means[3 * i + k])) ** 2;
        pose.rgb[3 * i + k] = (v * colors[3 * (ca + i) + k] + w * colors[3 * (cb + i) + k]) / 255;
      }
      pose.moved[i] = Math.sqrt(moved);
      pose.alphas[i] = (v * opacities[oa + i] + w * opacities[ob + i]) / 255;
      const p = 4 * (qa + i), q = 4 * (qb + i);
      const dot = quats[p] * quats[q] + quats[p + 1] * quats[q + 1] + quats[p + 2] * quats[q + 2] + quats[p + 3] * quats[q + 3];
      const u = dot < 0 ? -w : w;
      let r = v * quats[p] + u * quats[q], x = v * quats[p + 1] + u * quats[q + 1];
      let y = v * quats[p + 2] + u * quats[q + 2], z = v * quats[p + 3] + u * quats[q + 3];
      const length = Math.sqrt(r * r + x * x + y * y + z * z) || 1;
      r /= length; x /= length; y /= length; z /= length;
      const size = (k) => Math.exp(header.log_scales[0] + scaleStep * (v * scales[3 * (sa + i) + k] + w * scales[3 * (sb + i) + k]));
      const s = size(0), t = size(1), n = size(2);
      const m00 = s * (1 - 2 * (y * y + z * z)), m01 = t * 2 * (x * y - r * z), m02 = n * 2 * (x * z + r * y);
      const m10 = s * 2 * (x * y + r * z), m11 = t * (1 - 2 * (x * x + z * z)), m12 = n * 2 * (y * z - r * x);
      const m20 = s * 2 * (x * z - r * y), m21 = t * 2 * (y * z + r * x), m22 = n * (1 - 2 * (x * x + y * y));
      const c = 6 * i, out = pose.covariances;
      out[c] = m00 * m00 + m01 * m01 + m02 * m02;
      out[c + 1] = m00 * m10 + m01 * m11 + m02 * m12;
      out[c + 2] = m00 * m20 + m01 * m21 + m02 * m22;
      out[c + 3] = m10 * m10 + m11 * m11 + m12 * m12;
      out[c + 4] = m10 * m20 + m11 * m21 + m12 * m22;
      out[c + 5] = m20 * m20 + m21 * m21 + m22 * m22;
    }
    pose.count = count;
    pose.frame = a;
    return pose;
  }

  // The colour of Gaussian i as it is seen along (x, y, z), a unit vector: the harmonics of kg4d.geometry.harmonics.
  seen(i, x, y, z, into) {
    const { harmonics: top, harmonics_count: count } = this.header;
    const [A, B, C] = SECOND_HARMONICS, D = FIRST_HARMONIC;
    const { basis } = this;
    basis[0] = -D * y; basis[1] = D * z; basis[2] = -D * x;
    if (count > 3) {
      basis[3] = C * x * y; basis[4] = -C * y * z; basis[5] = B * (2 * z * z - x * x - y * y);
      basis[6] = -C * x * z; basis[7] = A * (x * x - y * y);
    }
    if (count > 8) {
      basis[8] = -0.5900435899266435 * y * (3 * x * x - y * y);
      basis[9] = 2.890611442640554 * x * y * z;
      basis[10] = -0.4570457994644658 * y * (4 * z * z - x * x - y * y);
      basis[11] = 0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y);
      basis[12] = -0.4570457994644658 * x * (4 * z * z - x * x - y * y);
      basis[13] = 1.445305721320277 * z * (x * x - y * y);
      basis[14] = -0.5900435899266435 * x * (x * x - 3 * y * y);
    }
    const first = 3 * count * (this.row("harmonics", this.pose.frame) + i);
    for (let channel = 0; channel < 3; channel++) {
      let sum = 0;
      for (let k = 0; k < count; k++) sum += basis[k] * this.harmonics[first + 3 * k + channel];
      into[channel] = this.pose.rgb[3 * i + channel] + (sum * top) / 127;
    }
  }
  basis = new Float32Array(15);

  // World positions of the keypoints at a place in time: an array of [x, y, z].
  keypointsAt(place) {
    if (!this.keypoints) return [];
    const count = this.header.names.length;
    const a = Math.min(Math.floor(place), this.frames - 1), b = Math.min(a + 1, this.frames - 1), w = place - a;
    return this.header.names.map((_, joint) =>
      [0, 1, 2].map((k) => {
        const now = this.keypoints[3 * (a * count + joint) + k], next = this.keypoints[3 * (b * count + joint) + k];
        return now + w * (next - now);
      }));
  }
}
